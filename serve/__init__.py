"""The Serve endpoint: a trained model over HTTP.

schemas      what goes over HTTP
settings     what can be set
app          the FastAPI application; `gate` in front of it: tokens, limits, request ids
service      what answers; `batcher` joins texts, `scoring` assesses them, `loaded` is the bundle
judging      the judge tier; `desk` is the one place that holds ledger, judge and rates
explain, about, rates, review   what the answers tell beside the decision
deployments  all of it on Ray Serve, packed or sharded
page/        the page at /
"""
