"""The public names, by what one does. Each is imported where it is first used."""

# Models
from .model.decoder import Decoder as Decoder
from .model.config import DecoderConfig as DecoderConfig
from .model.generate import generate as generate
from .model.peft_format import save_adapter as save_adapter
from .model.pretrained import load as load, save as save
from .model.sharding import make_mesh as make_mesh

# Data: what is given and what is learned
from .data.batches import Tokenized as Tokenized
from .data.prompting import Fields as Fields, Prompting as Prompting
from .data.problems import load_rows as load_rows

# Training
from .training.config import FinetuneConfig as FinetuneConfig
from .training.train import Finetuned as Finetuned, finetune as finetune
from .training.noise_scale import measure_noise as measure_noise

# Evaluation
from .evaluation.answers import Evaluation as Evaluation, is_right as is_right, judge as judge
from .evaluation.evaluation import evaluate as evaluate

# All of it as one job in a folder
from .job.job import run_job as run_job
from .job.settings import Job as Job
