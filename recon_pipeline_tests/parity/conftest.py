from recon_pipeline_tests.reconciliation.conftest import billing, make_billing, make_incremental_billing

__all__ = ["billing", "make_billing", "make_incremental_billing"]
