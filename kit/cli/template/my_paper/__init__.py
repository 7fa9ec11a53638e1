"""What my paper does; replace it by yours."""
