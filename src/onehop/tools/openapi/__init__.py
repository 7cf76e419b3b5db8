"""HTTP APIs that describe themselves by OpenAPI 3: each operation becomes a tool."""
