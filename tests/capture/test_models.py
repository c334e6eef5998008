"""MediaPipe's model files, without the network."""

import hashlib
import http.client
import io
import os
import urllib.error

import pytest

from mobile_bilayer.capture import models
from mobile_bilayer.capture.models import ModelFile, model_bytes
from mobile_bilayer.errors import MobileBilayerError

CONTENT = b"a model"
MODEL = ModelFile("face.task", "https://models.invalid/face.task", hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder and no variable set; the network must not be used unless a test says how."""
    monkeypatch.delenv("MOBILE_BILAYER_MODELS", raising=False)
    monkeypatch.setattr(models, "user_cache_path", lambda _name: tmp_path / "cache")
    answer(monkeypatch, AssertionError("the network was used"))
    return tmp_path / "cache" / "models"


def answer(monkeypatch, reply: bytes | BaseException) -> None:
    """Let the network give these bytes, or raise this error."""

    def urlopen(_url, timeout):
        if isinstance(reply, BaseException):
            raise reply
        return io.BytesIO(reply)

    monkeypatch.setattr(models.urllib.request, "urlopen", urlopen)


def test_the_variable_comes_before_the_cache(tmp_path, monkeypatch, cache):
    other = b"another model"
    cache.mkdir(parents=True)
    (cache / "face.task").write_bytes(CONTENT)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "face.task").write_bytes(other)
    monkeypatch.setenv("MOBILE_BILAYER_MODELS", str(tmp_path / "mine"))
    with pytest.raises(MobileBilayerError, match="sha256 differs"):
        model_bytes(MODEL)
    assert model_bytes(ModelFile("face.task", MODEL.url, hashlib.sha256(other).hexdigest())) == other


def test_CA3_a_models_folder_outside_ascii_works(tmp_path, monkeypatch, cache):
    folder = tmp_path / "Модели 模型 ä"
    folder.mkdir()
    (folder / "face.task").write_bytes(CONTENT)
    monkeypatch.setenv("MOBILE_BILAYER_MODELS", str(folder))
    assert model_bytes(MODEL) == CONTENT


def test_a_models_folder_without_the_file_is_told(tmp_path, monkeypatch, cache):
    monkeypatch.setenv("MOBILE_BILAYER_MODELS", str(tmp_path))
    with pytest.raises(MobileBilayerError, match="holds no face.task"):
        model_bytes(MODEL)


def test_a_models_file_that_can_not_be_opened_is_told(tmp_path, monkeypatch, cache):
    (tmp_path / "face.task").write_bytes(CONTENT)
    monkeypatch.setenv("MOBILE_BILAYER_MODELS", str(tmp_path))

    def denied(_path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(models.Path, "read_bytes", denied)
    with pytest.raises(MobileBilayerError, match="face.task could not be opened.*Permission denied"):
        model_bytes(MODEL)


def test_a_cache_that_can_not_be_read_is_downloaded_again(monkeypatch, cache):
    (cache / "face.task").mkdir(parents=True)  # reading and renaming fail
    answer(monkeypatch, CONTENT)
    assert model_bytes(MODEL) == CONTENT


def test_a_download_is_kept_and_not_repeated(monkeypatch, cache):
    answer(monkeypatch, CONTENT)
    assert model_bytes(MODEL) == CONTENT
    assert [p.name for p in cache.iterdir()] == ["face.task"]
    answer(monkeypatch, AssertionError("downloaded again"))
    assert model_bytes(MODEL) == CONTENT


def test_a_damaged_cache_is_downloaded_again(monkeypatch, cache):
    cache.mkdir(parents=True)
    (cache / "face.task").write_bytes(CONTENT[:3])
    answer(monkeypatch, CONTENT)
    assert model_bytes(MODEL) == CONTENT
    assert (cache / "face.task").read_bytes() == CONTENT


def test_a_download_with_another_hash_is_not_kept(monkeypatch, cache):
    answer(monkeypatch, b"<html>Please log in</html>")
    with pytest.raises(MobileBilayerError, match="sent a file with sha256"):
        model_bytes(MODEL)
    assert not cache.exists()


@pytest.mark.parametrize("error", [urllib.error.URLError("no route"), http.client.IncompleteRead(b"half")])
def test_a_failed_download_says_where_to_put_the_file(monkeypatch, cache, error):
    answer(monkeypatch, error)
    with pytest.raises(MobileBilayerError, match="could not be downloaded.*face.task") as caught:
        model_bytes(MODEL)
    assert caught.value.__cause__ is error
    assert str(cache / "face.task") in str(caught.value) and "MOBILE_BILAYER_MODELS" in str(caught.value)


def test_a_cache_that_can_not_be_written_is_no_error(monkeypatch, cache):
    cache.parent.write_bytes(b"a file where the folder should be")
    answer(monkeypatch, CONTENT)
    assert model_bytes(MODEL) == CONTENT


def test_the_cache_is_written_aside_and_a_failed_write_leaves_nothing(monkeypatch, cache):
    def fails(aside, path):
        assert os.path.dirname(aside) == str(cache) and aside != str(path)
        raise OSError("renaming failed")

    monkeypatch.setattr(models.os, "replace", fails)
    answer(monkeypatch, CONTENT)
    assert model_bytes(MODEL) == CONTENT
    assert list(cache.iterdir()) == []
