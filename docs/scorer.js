// Sphinx knows which pages hold a word, not how often: most hits score the same, and it lists those by title. Here the
// page that is read first comes first, since a word is explained where it is first used; pages about the book come last.
var Scorer = {
  pages: [/* all pages in the order of reading */],
  score: ([page, , , , score]) => {
    const place = Scorer.pages.indexOf(page);
    return score - (place < 0 ? Scorer.pages.length : place) / 1000;
  },
  // Sphinx's own scores
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
