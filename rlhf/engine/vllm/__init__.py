"""vLLM as the engine: replies of policies from a process that generates, scores of rewards from one that pools.

`engine.VllmEngine` stands where `rlhf.engine.live.LiveEngine` stands and is asked through the same records. vLLM runs as processes
of their own (its pins and ours don't go together in one environment); here is what speaks to them over HTTP. An adapter goes there
under a name that is never given twice, and is tried before anybody is answered with it.
"""
