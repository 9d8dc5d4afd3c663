// Figures open large in a dialog, links into a fold open it, and what is folded is printed. Without this script figures
// open as files.
(() => {
  const dialog = document.getElementById("large");
  const stage = dialog.querySelector(".stage");
  let home = null; // the figure's place on the page while it is shown large

  document.addEventListener("click", (event) => {
    const sheet = event.target.closest("a.sheet");
    if (!sheet || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    home = sheet;
    sheet.style.minHeight = `${sheet.offsetHeight}px`;
    document.getElementById("large-title").textContent = sheet.dataset.title;
    stage.replaceChildren(sheet.querySelector("svg"), sheet.nextElementSibling.children[1].cloneNode(true));
    stage.scrollTo(0, 0);
    dialog.showModal();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog || event.target.matches("[data-close]")) dialog.close();
  });
  dialog.addEventListener("close", () => {
    home.prepend(stage.firstElementChild);
    stage.replaceChildren();
    home.style.minHeight = "";
    home.focus();
  });

  const unfold = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const fold = target && target.closest("details");
    if (!fold || fold.open) return;
    fold.open = true;
    target.scrollIntoView();
  };
  addEventListener("hashchange", unfold);
  unfold();

  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    for (const details of folded) details.open = true;
  });
  addEventListener("afterprint", () => {
    for (const details of folded) details.open = false;
  });
})();
