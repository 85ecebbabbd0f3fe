"""From the champion to an endpoint: the canary film, and what follows from its answer.

What an endpoint's service does stands in `resources/endpoints.py`; the asset's page in `assets/endpoint.py`.
"""
