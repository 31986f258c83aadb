/** What a rule's symbol means, in words: "why" says what was seen. */

import { CATALOGUE } from '../../src/message/catalogue.ts'

const WORDS: Readonly<Record<string, string>> = {
  GTUBE: 'Test text for spam filters',
  EICAR: 'Test virus',
  BLOCK_LIST: 'Sender or client on the block list',
  ALLOW_LIST: 'Client on the allow list',
  ARCHIVE_LIMIT: 'Archive too deep or too large to open',
  ARCHIVE_ENCRYPTED: 'Encrypted archive',
  ARCHIVE_BROKEN: 'Damaged archive',
  MIME_LIMIT: 'Too many parts to look at',
  MIME_AMBIGUOUS: 'Mail programs may show it differently',
  MIME_BROKEN: 'Malformed structure',
  MISSING_FROM: 'No sender line',
  MISSING_DATE: 'No date',
  MISSING_MESSAGE_ID: 'No message id',
  MULTIPLE_FROM: 'More than one sender line',
  DUPLICATE_HEADER: 'Header fields that occur twice',
  BAD_ATTACHMENT_NAME: 'Attachment with a dangerous name',
  BAD_ATTACHMENT_TYPE: 'Attachment of a dangerous type',
  ATTACHMENT_NAME_DECEIVES: 'Attachment with a deceiving name',
  ATTACHMENT_DOUBLE_EXTENSION: 'Attachment with a double extension',
  MESSAGE_PARTIAL: 'One piece of a larger mail',
  MESSAGE_EXTERNAL: 'A part is fetched from elsewhere',
}

/** What the catalogue says of a rule, as a title. */
const TITLES = new Map(CATALOGUE.map(({ rule, says }) => [rule, says.replace(/\.$/, '')]))

/** Words for a symbol; a symbol without words speaks for itself. */
export function ruleWords(rule: string): string {
  const words = WORDS[rule] ?? TITLES.get(rule)
  if (words !== undefined) return words
  const plain = rule.replaceAll('_', ' ').toLowerCase()
  return plain.charAt(0).toUpperCase() + plain.slice(1)
}

/** The first rules in words: `Encrypted archive; no date`. */
export function rulesInWords(rules: readonly string[], most = 2): string {
  const words = rules.map(ruleWords)
  const shown = words.slice(0, most).map((text, i) => (i === 0 ? text : lower(text)))
  const more = words.length > most ? [`${words.length - most} more`] : []
  return [...shown, ...more].join('; ')
}

function lower(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1)
}

const INSPECTORS: Readonly<Record<string, string>> = {
  gtube: 'Spam test',
  eicar: 'Virus test',
  headers: 'Header check',
  attachments: 'Attachment check',
  documents: 'Document check',
  impersonation: 'Check of names',
  text: 'Text check',
  links: 'Link check',
  bayes: 'What was learnt',
  campaign: 'Search for alike mails',
  rules: 'Your rules',
  yara: 'Your YARA rules',
  sender: 'Check of the sender',
  blocklists: 'Block lists of links',
}

/** `Attachment check gave no answer`. */
export function unknownWords(inspector: string): string {
  return `${INSPECTORS[inspector] ?? inspector} gave no answer`
}
