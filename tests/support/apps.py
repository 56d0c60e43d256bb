"""app.py as it is under other settings: whether it asks for keys is decided when it is imported."""

from __future__ import annotations

import importlib.util

import pytest
from chalice.app import Chalice

from chalicelib import wiring
from chalicelib.settings import load
from infra.package import ROOT


def app_as_set(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Chalice:
    """Return the app under ``environment``, which is what the whole process is set to then."""
    settings = load(environment)
    monkeypatch.setattr(wiring, "settings", lambda: settings)
    spec = importlib.util.spec_from_file_location("app_as_set", ROOT / "app.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    app: Chalice = module.app
    return app
