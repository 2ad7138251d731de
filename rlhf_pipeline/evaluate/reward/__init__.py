"""How good is a reward model: accuracy, calibration, agreement, length bias and EOS on rankings, beside baselines."""
