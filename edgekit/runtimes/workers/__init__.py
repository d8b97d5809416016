"""Scripts that run alone, one fresh process per job, on this machine or on a device (formats: `edgekit.jobs`)."""
