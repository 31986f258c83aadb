/** The boundary of a multipart as readers take it (RFC 2046 section 5.1.1). */
import { type Parametered, paramReadings } from './parameters.ts'

/** Without the blanks at its end, which RFC 2046 section 5.1.1 forbids. */
export function boundaryReadings(type: Parametered): readonly string[] {
  return paramReadings(type, 'boundary').map((reading) => reading.trimEnd())
}

const MULTIPART = /^multipart\/[a-z0-9.+-]+$/
/** Quoted without anything to unquote, or one word; the signs that mailers leave bare are no matter. */
const BOUNDARY =
  /;\s*boundary=\s*(?:"(?! )[^"\\\x00-\x1f\x7f]{1,70}(?<! )"|[^\s"(),;\\\x00-\x1f\x7f]{1,70})\s*(?:;|$)/gi

/** One type, and one boundary that needs no art to be read. */
export function isPlain(type: string, value: string): boolean {
  if (!MULTIPART.test(type)) return false
  const found = value.match(BOUNDARY)
  return found?.length === 1 && value.match(/boundary[*\d\s\0]*=/gi)?.length === 1
}

/** What stands after `--` on the first line that begins with it, within the first 64 KB. */
export function guessBoundary(body: Buffer): string | null {
  const match = /^--([^\r\n]{1,200}?)(?:--)?[ \t]*$/m.exec(
    body.toString('latin1', 0, Math.min(body.length, 65_536)).replace(/\r/g, ''),
  )
  return match?.[1] ?? null
}
