from .interface import Message as Message
from .interface import ModelError as ModelError
from .interface import Prompt as Prompt
from .interface import Scorer as Scorer
from .network import new_head as new_head
from .reward_functions import reward_function as reward_function
from .reward_model import RewardModel as RewardModel
