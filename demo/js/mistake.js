/** Something the visitor can mend: the name of a sentence in words.js, and what goes into it. */
export class Mistake extends Error {
  constructor(sentence, ...details) {
    super(sentence);
    this.sentence = sentence;
    this.details = details;
  }
}
