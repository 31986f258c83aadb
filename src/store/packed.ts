/**
 * What was committed, as the text in which it rests in memory by the hundred thousand: its JSON, in
 * which what stands in almost all of them is one character. A field that moves or is new costs
 * nothing but room.
 */

/**
 * At most 31: the control characters, of which JSON has none. Each begins with a quotation mark, so
 * that few places are looked at, and stands before those that it begins with.
 */
const PHRASES: readonly string[] = [
  '"envelope":{"id":"',
  '","receivedMs":',
  '"clientIp":"',
  '","greeting":"',
  '","protocol":"',
  '"tls":null,"outbound":false,"sender":"',
  '"outbound":false,"sender":"',
  '","eightBit":false,"smtpUtf8":false,"ret":null,"envid":null,"recipients":[{"address":"',
  '","notify":null,"orcpt":null},{"address":"',
  '","notify":null,"orcpt":null}]},"prepend":"Received: from ',
  '"sizeBytes":',
  '"sha256":"',
  '","expiresMs":',
  '"facts":{"subject":',
  '"from":',
  '"messageId":',
  '"authors":[',
  '"verdicts":[',
  '"kind":"deliver","score":0,"rules":[],"unknown":[]},{',
  '"kind":"deliver","score":',
  '"rules":[',
  '"unknown":[',
  '"judgement":null,"dsn":false,"heldMoved":false,"owner":"',
  '","term":1,"holders":[',
  '"pieces":1',
]

const codes: ReadonlyMap<string, string> = new Map(
  PHRASES.map((phrase, index) => [phrase, String.fromCharCode(index + 1)]),
)
const PHRASE = new RegExp(
  `"(?:${PHRASES.map((phrase) => RegExp.escape(phrase.slice(1))).join('|')})`,
  'g',
)
const CODE = /[\x01-\x1f]/g
/** One of them would make two octets of each letter. */
const NOT_LATIN_1 = /[^\0-\xff]/g

/** Of plain data, in a half to a third of its JSON. */
export function pack(value: unknown): string {
  return JSON.stringify(value)
    .replace(PHRASE, (phrase) => codes.get(phrase) ?? phrase)
    .replace(NOT_LATIN_1, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

/** The JSON of what was packed. */
export function unpack(packed: string): string {
  return packed.replace(CODE, (code) => PHRASES[code.charCodeAt(0) - 1] ?? code)
}
