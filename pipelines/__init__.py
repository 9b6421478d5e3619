"""The graphs: which stage feeds which. The same graph stands in dvc.yaml and is built for Kubeflow Pipelines."""
