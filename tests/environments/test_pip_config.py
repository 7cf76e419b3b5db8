"""pip's settings reach uv, the user's own for uv win, and what is missing is left out."""

from pathlib import Path

from onehop.environments.pip_config import UvSettings, read_pip_settings, translate


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def read(tmp_path: Path, **environ: str) -> dict[str, str]:
    return read_pip_settings(
        {"HOME": str(tmp_path / "home"), **environ}, prefix=tmp_path / "venv", etc=tmp_path / "etc"
    )


def test_later_files_and_variables_override_earlier_ones(tmp_path: Path) -> None:
    write(tmp_path / "etc" / "pip.conf", "[global]\nindex-url = https://etc.example/simple\ntimeout = 7\n")
    assert read(tmp_path)["index-url"] == "https://etc.example/simple"
    write(
        tmp_path / "home" / ".config" / "pip" / "pip.conf",
        "[global]\nindex_url = https://user.example/simple\n",
    )
    assert read(tmp_path)["index-url"] == "https://user.example/simple"
    write(tmp_path / "venv" / "pip.conf", "[install]\nindex-url = https://venv.example/simple\n")
    assert read(tmp_path)["index-url"] == "https://venv.example/simple"
    assert (
        read(tmp_path, PIP_INDEX_URL="https://var.example/simple")["index-url"]
        == "https://var.example/simple"
    )
    assert read(tmp_path, PIP_INDEX_URL="")["index-url"] == "https://venv.example/simple"
    assert read(tmp_path)["timeout"] == "7"


def test_pip_config_file_replaces_the_users_file_and_devnull_all(tmp_path: Path) -> None:
    write(tmp_path / "home" / ".pip" / "pip.conf", "[global]\nproxy = http://user.example:1\n")
    write(tmp_path / "chosen.conf", "[global]\ncert = /chosen.pem\n")
    assert read(tmp_path, PIP_CONFIG_FILE=str(tmp_path / "chosen.conf")) == {
        "cert": "/chosen.pem",
        "config-file": str(tmp_path / "chosen.conf"),
    }
    assert "proxy" not in read(tmp_path, PIP_CONFIG_FILE="/dev/null")


def test_a_broken_file_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "etc" / "pip.conf", "no section at all\n")
    write(tmp_path / "venv" / "pip.conf", "[global]\nno-index = true\n")
    assert read(tmp_path) == {"no-index": "true"}


def test_everything_is_translated(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "ca.pem").touch()
    settings = {
        "index-url": "https://mirror.example/simple",
        "extra-index-url": f"https://a.example/simple\n{(tmp_path / 'wheels').as_uri()}",
        "find-links": f"{tmp_path / 'wheels'} https://links.example/",
        "no-index": "true",
        "cert": str(tmp_path / "ca.pem"),
        "client-cert": str(tmp_path / "ca.pem"),
        "trusted-host": "a.example b.example",
        "proxy": "http://proxy.example:3128",
        "default-timeout": "180",
    }
    assert translate(settings, {}) == UvSettings(
        variables={
            "UV_DEFAULT_INDEX": "https://mirror.example/simple",
            "UV_INDEX": f"https://a.example/simple {(tmp_path / 'wheels').as_uri()}",
            "UV_INDEX_STRATEGY": "unsafe-best-match",
            "UV_FIND_LINKS": f"{tmp_path / 'wheels'},https://links.example/",
            "UV_INSECURE_HOST": "a.example b.example",
            "SSL_CERT_FILE": str(tmp_path / "ca.pem"),
            "SSL_CLIENT_CERT": str(tmp_path / "ca.pem"),
            "ALL_PROXY": "http://proxy.example:3128",
            "UV_HTTP_TIMEOUT": "180",
        },
        flags=("--no-index",),
    )


def test_missing_local_places_are_left_out() -> None:
    settings = {
        "extra-index-url": "file:///nowhere/simple",
        "find-links": "/nowhere file:///nowhere",
        "cert": "/nowhere.pem",
    }
    assert translate(settings, {}) == UvSettings({})


def test_what_is_set_for_uv_wins() -> None:
    settings = {
        "index-url": "https://mirror.example/simple",
        "extra-index-url": "https://a.example/simple",
        "find-links": "https://links.example/",
        "default-timeout": "180",
    }
    environ = {
        "UV_INDEX_URL": "https://mine.example/simple",
        "UV_FIND_LINKS": "/mine",
        "UV_HTTP_TIMEOUT": "5",
    }
    assert translate(settings, environ) == UvSettings({})
