"""`icl-theory finetune --multi-host`: several hosts do what one does."""

import json
import os
import subprocess
import sys

import numpy as np
from finetune_command import QUICK, weights
from helpers import run_command

HOST = """
import os, sys
from icl_theory.cli import main
from icl_theory.llm.training.run_checkpoints import Checkpoints
from icl_theory.upsampling.noise_scale import load_noise_scale
save, count, most = Checkpoints.save, [], int(sys.argv[1])
def stopping(self, *arguments):
    save(self, *arguments)
    count.append(1)
    if len(count) == most:
        raise KeyboardInterrupt
Checkpoints.save = stopping
main(sys.argv[2:])
"""


def two_hosts(saves, *arguments):
    """Exit codes of two processes, each with two devices, that a cluster has started; stopped at a checkpoint."""
    cluster = {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_TASKS": "2",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
    }
    hosts = [
        subprocess.Popen(
            [sys.executable, "-c", HOST, str(saves), *map(str, arguments)],
            env=os.environ | cluster | {"SLURM_PROCID": str(host), "SLURM_LOCALID": str(host)},
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for host in range(2)
    ]
    said = [host.communicate(timeout=300) for host in hosts]
    return [host.returncode for host in hosts], said


def test_several_hosts_do_what_one_does(tmp_path, model, digits, asked):
    options = ["--upsample", "--recorded-steps", 8, "--remaining", 0.9, "--steps", 8, "--save-every", 4, *QUICK]
    options += ["--eval", asked, "--max-new", 2]
    alone, hosts = tmp_path / "alone", tmp_path / "hosts"
    assert run_command("finetune", model, digits, "--out", alone, *options) == 0
    arguments = ["finetune", model, digits, "--out", hosts, *options, "--multi-host", "--shards", 2]
    assert two_hosts(3, *arguments)[0] == [130, 130]  # at step 4 of the run on the upsampled set
    codes, said = two_hosts(0, *arguments)
    assert codes == [0, 0], said
    assert ["wrote" in out for out, _ in said] == [True, False]  # the first host speaks for all
    curves = [np.loadtxt(folder / "loss.csv", delimiter=",", skiprows=1) for folder in (alone, hosts)]
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-4)
    for ours, theirs in zip(weights(alone / "model"), weights(hosts / "model"), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)
    reports = [json.loads((folder / "report.json").read_text()) for folder in (alone, hosts)]
    assert reports[0]["upsampling"]["upsampled"] == reports[1]["upsampling"]["upsampled"]
