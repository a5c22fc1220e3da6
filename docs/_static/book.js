// A link to what lies in a fold, such as a claim on the board, opens the fold; newer browsers do this by themselves.
const unfold = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const fold = target?.closest("details:not([open])");
  if (fold) {
    fold.open = true;
    target.scrollIntoView();
  }
};
addEventListener("DOMContentLoaded", unfold);
addEventListener("hashchange", unfold);
