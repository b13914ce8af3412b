"""The benchmark: measures the budgets on a real control plane, beside the raw limits of the same API server in the same run."""
