"""Imported before the package: the first check of jaxtyping's hook would import JAX, two seconds.

It does so to keep itself out of JAX's tracebacks, of which there are none in these processes.
"""

import jaxtyping._decorator

jaxtyping._decorator._tb_flag = False
