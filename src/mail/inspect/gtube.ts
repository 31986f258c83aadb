/** GTUBE: the text that every spam filter must find, for tests of a whole installation. */
import { decodeCharset } from '../../message/header.ts'
import type { Mail } from '../../message/mime.ts'
import type { Finding } from '../../message/verdict.ts'
import type { Inspector } from './look.ts'

/** In two halves, so that this file may travel by mail. */
const GTUBE = Buffer.from(
  ['XJS*C4JDBQADN1.NSBN3*2IDNEN*', 'GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X'].join(''),
)

const FOUND: readonly Finding[] = [
  { rule: 'GTUBE', score: 10, evidence: 'The message holds the test text GTUBE.' },
]

export const gtube: Inspector = {
  name: 'gtube',
  inspect: ({ mail }) => (holdsGtube(mail) ? FOUND : []),
}

function holdsGtube(mail: Mail): boolean {
  if (mail.raw.includes(GTUBE)) return true
  for (const part of mail.leaves) {
    if (!part.type.startsWith('text/')) continue
    const wide = part.charset?.startsWith('utf-16') === true
    for (const content of mail.contents(part)) {
      const text = wide ? Buffer.from(decodeCharset(content, part.charset)) : content
      if (text.includes(GTUBE)) return true
    }
  }
  return false
}
