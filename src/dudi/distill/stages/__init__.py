"""What runs before the first step of a method, and between the iterations of SPIN."""
