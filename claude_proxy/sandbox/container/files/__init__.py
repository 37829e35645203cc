"""Files of a project for other programs: compose, dev containers, quadlet, Kubernetes, CI."""
