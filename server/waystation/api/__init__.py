"""HTTP only: reads requests, calls the use cases of `waystation.runs`, frames answers."""
