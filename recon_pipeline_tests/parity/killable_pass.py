"""A process that makes one pass, to be killed in the middle of it.

Run as `python -m recon_pipeline_tests.parity.killable_pass URL STRIPE_URL NOW`.
"""

import sys
from datetime import datetime

from recon_pipeline.faces.demo.fake_stripe import KEY
from recon_pipeline.providers.stripe import StripeMeters
from recon_pipeline_tests.parity.comparing import comparison

if __name__ == "__main__":
    url, stripe_url, now = sys.argv[1:]
    comparison(url, StripeMeters(KEY, stripe_url), datetime.fromisoformat(now)).run()
