"""How the API works: routes, dispatch, errors, filters and the OpenAPI document."""
