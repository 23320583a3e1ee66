"""Entry points of packages that are not installed."""

import importlib.metadata

import pytest


def install(monkeypatch: pytest.MonkeyPatch, group: str, *added: tuple[str, str]) -> None:
    """Let a group hold more entry points, (name, module:object) each, for one test."""
    usual = importlib.metadata.entry_points

    def entry_points(**wanted: str) -> list[importlib.metadata.EntryPoint]:
        found = list(usual(group=wanted["group"]))
        if wanted["group"] == group:
            found += [importlib.metadata.EntryPoint(name, value, group) for name, value in added]
        return found

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
