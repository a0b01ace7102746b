"""Fine-tuning: the loop, its schedules, distillation from the dense network, resume."""
