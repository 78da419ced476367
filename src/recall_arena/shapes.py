"""The axes that tensors have in this package, and the tensor types that signatures use.

batch      sequences that are worked on together
length     positions of a sequence: context + 1, for the query comes last
width      numbers in a residual stream's vector, d in the papers
channels   numbers inside a mixer: width times the expansion
state      numbers that a channel remembers, N in the papers
vocabulary how many tokens there are, K
read       positions whose outputs are wanted: all of them, or the last alone
asked      positions of a sequence after which a task wants an answer
heads      attention heads, each of head_width numbers; or those of a delta rule, whose keys
           have key_width and whose values value_width
"""

from jaxtyping import Float, Int64
from torch import Tensor

Tokens = Int64[Tensor, "batch length"]
Where = Int64[Tensor, "batch asked"]
Answers = Int64[Tensor, "batch *asked"]
Hidden = Float[Tensor, "batch length width"]
ReadHidden = Float[Tensor, "batch read width"]
Logits = Float[Tensor, "batch *asked vocabulary"]
Channels = Float[Tensor, "batch length channels"]
Selection = Float[Tensor, "batch length state"]
Heads = Float[Tensor, "batch heads length head_width"]
Queries = Float[Tensor, "batch heads queries head_width"]
