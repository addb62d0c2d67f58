"""`make demo`: a good revision walks to 100 % and a bad one is rolled back, in one terminal, on a real cluster."""
