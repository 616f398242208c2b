"""One typed tree for a run: YAML recipes, then `key=value`; where each value came from. No torch here."""

from dudi.config.recipe_files import find_recipe, list_recipes
from dudi.config.run_config import RunConfig, load_run_config
from dudi.config.sections import BenchmarkSection, DataSection, LoraSection, ModelSection, TeacherSection
from dudi.config.stack_config import StackConfig, load_stack_config

__all__ = [
    "BenchmarkSection",
    "DataSection",
    "LoraSection",
    "ModelSection",
    "RunConfig",
    "StackConfig",
    "TeacherSection",
    "find_recipe",
    "list_recipes",
    "load_run_config",
    "load_stack_config",
]
