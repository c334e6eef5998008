"""Hosted CI calls what people run: files, commands and tests that exist, by pinned actions."""

import re
from pathlib import Path

import pytest
import typer.main
import yaml

from mobile_bilayer import cli

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
COMES_WITH_THE_APP = {"emulator"} if not (ROOT / "android_demo" / "settings.gradle.kts").is_file() else set()
# What runners bring, or what a step before has installed.
TOOLS = {"apt-get", "pip", "python", "pytest", "./gradlew", "echo", "sudo", "mobile-bilayer", ".ci/run"}
OF_MACS = {"brew", "swift", "xcodegen", "xcodebuild"}


def steps() -> list:
    found = []
    for path in WORKFLOWS:
        for job, about in yaml.safe_load(path.read_text("utf-8"))["jobs"].items():
            if job not in COMES_WITH_THE_APP:
                on_mac = about["runs-on"].startswith("macos")
                found += [pytest.param(step, on_mac, id=f"{path.stem}-{job}-{i}") for i, step in enumerate(about["steps"])]
    return found


def commands(step: dict) -> list[str]:
    text = step.get("run") or step.get("with", {}).get("script", "")
    return [part.strip() for line in text.splitlines() for part in re.split(r"&&|\|", line) if part.strip()]


def test_there_is_a_workflow_for_each_system_and_it_says_whether_it_has_run():
    assert [path.stem for path in WORKFLOWS] == ["android", "linux", "macos"]
    for path in WORKFLOWS:
        assert path.read_text("utf-8").startswith("# Not run yet")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_is_whole(path):
    read = yaml.safe_load(path.read_text("utf-8"))
    assert set(read) <= {"name", True, "permissions", "concurrency", "jobs"}  # YAML 1.1 takes `on` for a truth
    assert read["permissions"] == {"contents": "read"} and set(read[True]) == {"push", "pull_request"}
    for job in read["jobs"].values():
        assert set(job) <= {"runs-on", "container", "timeout-minutes", "env", "steps"} and job["timeout-minutes"] <= 90
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            assert set(step) <= {"name", "uses", "with", "run", "working-directory"}


@pytest.mark.parametrize(("step", "on_mac"), steps())
def test_a_step_calls_what_exists_and_pins_what_is_not_ours(step, on_mac):
    if "uses" in step:
        assert re.fullmatch(r"[\w.-]+/[\w./-]+@v\d+\.\d+\.\d+", step["uses"])
    folder = step.get("working-directory") or step.get("with", {}).get("working-directory", ".")
    assert (ROOT / folder).is_dir()
    known = typer.main.get_command(cli.app).commands
    for command in commands(step):
        words = command.split()
        assert words[0] in TOOLS | (OF_MACS if on_mac else set()), command
        if words[0] == "mobile-bilayer":
            assert words[1] in known
        if words[0] == "./gradlew":
            assert (ROOT / folder / "gradlew").is_file() and (ROOT / folder / "settings.gradle.kts").is_file()
        if words[0] == "xcodegen":
            assert (ROOT / folder / "project.yml").is_file()
        if words[0] == "swift":
            assert (ROOT / folder / words[words.index("--package-path") + 1] / "Package.swift").is_file()
        if words[0] == "xcodebuild":
            project = yaml.safe_load((ROOT / folder / "project.yml").read_text("utf-8"))
            assert words[words.index("-workspace") + 1] == f"{project['name']}.xcworkspace"
        for word in words:
            if word.startswith("tests/") or word.endswith(".py") or word == ".ci/run":
                assert (ROOT / folder / word).exists(), command


def test_linux_runs_what_a_stranger_runs():
    linux = yaml.safe_load((ROOT / ".github" / "workflows" / "linux.yml").read_text("utf-8"))
    assert [step["run"] for job in linux["jobs"].values() for step in job["steps"] if "run" in step] == [".ci/run"]
