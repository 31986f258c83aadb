/** What the operator's preview shows is what the inspectors saw, or the mail is held: E26 of the catalogue. */
import { describe, expect, test } from 'bun:test'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { simpleParser } from 'mailparser'
import { parseFindings } from '../src/mail/inspect/parse.ts'
import { previewOf } from '../src/mail/inspect/preview.ts'
import { decodeCharset } from '../src/message/header.ts'
import { Mail } from '../src/message/mime.ts'
import { textsOf } from '../src/message/texts.ts'
import { STRUCTURES } from './mime-structures.ts'
import { ENCODINGS, findingsOf } from './mime-world.ts'

/** Words alone: readers differ on blanks, line ends and marks at the begin. */
const bare = (text: string): string => text.replace(/[\s\0\ufeff\ufffd]+/g, '')

/** Its own words: markup between two pages, and the head of a mail that is forwarded. */
const OWN = /^(?:<[^<>]*>)*$|^(?:From|To|Cc|Date|Subject):|class="mp_/

/** What mailparser, which the preview uses, shows and the parts do not hold. */
async function unseen(raw: Buffer): Promise<readonly string[]> {
  const mail = new Mail(raw)
  const shown = await simpleParser(raw, {
    skipHtmlToText: true,
    skipTextToHtml: true,
    skipTextLinks: true,
    skipImageLinks: true,
  }).catch(() => null)
  if (shown === null) return []
  const held = mail.parts.flatMap((part) =>
    part.container ? [part.source.subarray(part.start, part.end)] : mail.contents(part),
  )
  // An attached message is in the tree with its header: to mailparser that header may be text.
  const texts = mail.parts
    .flatMap((part) =>
      part.container
        ? part.type.startsWith('message/')
          ? [part.source.toString('utf8', part.start, part.end)]
          : []
        : [
            ...textsOf(mail, part),
            ...mail.contents(part).map((content) => decodeCharset(content, part.charset)),
          ],
    )
    .map(bare)
  const missing: string[] = []
  for (const { filename, content } of shown.attachments) {
    // Line ends of a text are not kept by it.
    const same = held.some(
      (each) =>
        each.equals(content) || bare(each.toString('latin1')) === bare(content.toString('latin1')),
    )
    if (!same) missing.push(`file ${filename ?? ''} of ${content.length} bytes`)
  }
  for (const part of [shown.text ?? '', shown.html === false ? '' : shown.html]) {
    for (const line of part.split(/\r?\n/).map(bare)) {
      if (line === '' || OWN.test(line) || texts.some((text) => text.includes(line))) continue
      missing.push(`line ${line.slice(0, 80)}`)
    }
  }
  return missing
}

const isHeld = (raw: Buffer): boolean =>
  findingsOf(raw, []).reduce((sum, { score }) => sum + score, 0) >= 8

describe('E26 two parsers in one gateway', () => {
  for (const [row, cases] of Object.entries(STRUCTURES)) {
    test(`${row}: what is shown was seen, or it is held`, async () => {
      for (const [name, make] of cases) {
        for (const encoding of ENCODINGS) {
          const raw = make(encoding)
          const missing = await unseen(raw)
          if (missing.length > 0 && !isHeld(raw)) expect([name, encoding.name, missing]).toEqual([])
        }
      }
    }, 30_000)
  }
  const folder = join(import.meta.dir, 'mail')
  test('of every kept mail', async () => {
    for (const file of readdirSync(folder).filter((each) => each.endsWith('.eml'))) {
      const raw = readFileSync(join(folder, file))
      const missing = await unseen(raw)
      if (missing.length > 0 && !isHeld(raw)) expect([file, missing]).toEqual([])
    }
  }, 30_000)
  test('the files of a preview are the leaves of the tree, with their hashes', async () => {
    const [, make] = STRUCTURES['E09 no end, or something behind it']?.[0] ?? []
    const raw = make?.(ENCODINGS[0] as (typeof ENCODINGS)[number]) ?? Buffer.of()
    const mail = new Mail(raw)
    const { attachments } = await previewOf(raw)
    expect(attachments.map(({ sha256 }) => sha256)).toEqual(
      mail.leaves
        .filter((part) => part.names.length > 0)
        .map((part) =>
          new Bun.CryptoHasher('sha256')
            .update(mail.contents(part)[0] ?? Buffer.of())
            .digest('hex'),
        ),
    )
    expect(parseFindings(mail)).toEqual([])
  })
})
