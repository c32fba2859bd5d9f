"""Why a backup or a restore cannot be made."""

from deeplens_streams.errors import DeepLensError


class BackupRefused(DeepLensError):
    """This folder cannot be used for a backup or a restore."""

    code = "BACKUP_REFUSED"


class BackupDamaged(DeepLensError):
    """Something in a backup, or at its source, is not as it must be."""

    code = "BACKUP_DAMAGED"
