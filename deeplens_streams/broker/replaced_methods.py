"""Methods of other packages that are replaced here: each has to be there, with the same parameters.

They are not public, so that any release may drop or change them. Then nobody would call what is
written here, and events would be lost in silence: a start that fails is better.
"""

import inspect
from importlib.metadata import version
from typing import Final

#: The releases whose methods are replaced, as setup.cfg has them.
EXPECTED: Final = {"aiokafka": ">=0.14,<0.15", "faust-streaming": "==0.15.3"}


def require(package: str, owner: type, **methods: tuple[str, ...]) -> None:
    """Have a class of a package have these methods, each with these parameters behind `self`.

    Raises
    ------
    ImportError
        One is missing or takes others; the message says which release of the package is expected.
    """
    for name, parameters in methods.items():
        method = getattr(owner, name, None)
        found = None if method is None else tuple(inspect.signature(method).parameters)[1:]
        if found != parameters:
            there = "is missing" if found is None else f"takes ({', '.join(found)})"
            raise ImportError(
                f"{owner.__qualname__}.{name}, which is replaced, {there} in {package} "
                f"{version(package)}, where ({', '.join(parameters)}) is expected; "
                f"install {package}{EXPECTED[package]}."
            )
