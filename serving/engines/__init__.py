"""Model servers: one process per release and region, Open Inference Protocol over HTTP."""
