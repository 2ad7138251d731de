"""The artifact store: where the stages meet."""

from rlhf_pipeline.artifacts.folders import folder_fingerprint, folder_id, import_folder
from rlhf_pipeline.artifacts.manifest import Manifest
from rlhf_pipeline.artifacts.storage import storage_errors
from rlhf_pipeline.artifacts.store import Store

__all__ = ["Manifest", "Store", "folder_fingerprint", "folder_id", "import_folder", "storage_errors"]
