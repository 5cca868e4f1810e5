// null: the validator would be another host's
SwaggerUIBundle({ url: "?format=openapi", dom_id: "#api", deepLinking: true, validatorUrl: null });
