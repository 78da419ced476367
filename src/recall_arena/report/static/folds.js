"use strict";
// Details are open for those without script and on paper, else until they are asked for.
{
  const folds = document.querySelectorAll("details");
  const open = (whether) => folds.forEach((one) => { one.open = whether; });
  open(false);
  addEventListener("beforeprint", () => open(true));
  addEventListener("hashchange", () => {
    const found = document.getElementById(location.hash.slice(1));
    found?.querySelector("details")?.setAttribute("open", "");
  });
}
