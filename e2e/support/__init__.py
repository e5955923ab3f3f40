"""What the tests share: the cluster, the trainer on this machine, data sets made for a test, and the mathematics again."""
