"""The commands by what people do with them, and the module that defines each, in the order of `clipcond --help`."""

from __future__ import annotations

GROUPS = {
    "Prompts": {
        "tokens": "clipcond.cli.tokens",
        "translate": "clipcond.cli.translate",
        "expand": "clipcond.cli.expand",
        "encode": "clipcond.cli.encode",
    },
    "Pictures": {
        "generate": "clipcond.cli.generate",
        "explain": "clipcond.cli.explain",
        "rerank": "clipcond.cli.rerank",
        "compare": "clipcond.cli.compare",
        "embed": "clipcond.cli.embed",
        "cache": "clipcond.cli.cache",
    },
    "Finding": {
        "search": "clipcond.cli.search",
        "classify": "clipcond.cli.classify",
        "ask": "clipcond.cli.ask",
        "detect": "clipcond.cli.detect",
        "screen": "clipcond.cli.screen",
        "probe": "clipcond.cli.probe",
        "tune": "clipcond.cli.tune",
        "duplicates": "clipcond.cli.duplicates",
        "caption-rank": "clipcond.cli.captions",
        "interrogate": "clipcond.cli.captions",
    },
    "Training": {
        "train": "clipcond.cli.train",
        "evaluate": "clipcond.cli.evaluate",
        "report": "clipcond.cli.report",
        "drift": "clipcond.cli.drift",
        "export": "clipcond.cli.export",
    },
    "Models and machine": {
        "models": "clipcond.cli.doctor",
        "lora-info": "clipcond.cli.lora_info",
        "doctor": "clipcond.cli.doctor",
        "conformance": "clipcond.cli.conformance",
        "demo": "clipcond.cli.demo",
    },
}

COMMANDS = {command: module for group in GROUPS.values() for command, module in group.items()}
