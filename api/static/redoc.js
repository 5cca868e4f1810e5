// five operations need no search, whose worker the page's policy would have to allow
Redoc.init("?format=openapi", { disableSearch: true, expandResponses: "200,202" }, document.getElementById("api"));
