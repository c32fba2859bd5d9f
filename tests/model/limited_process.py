"""The real process of the model in a container that has hardly any memory left for pictures."""

from unittest.mock import patch

from deeplens_streams.features.child import main

if __name__ == "__main__":
    patch.object(main, "container_room", lambda: 0).start()
    main.main()
