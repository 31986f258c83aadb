/**
 * Suites that others made: SPF (openspf, RFC 7208) and ARC (ValiMail, RFC 8617), through the
 * inspector as it is. Exceptions stand in EXCEPTIONS with the text that we follow.
 */
import { describe, expect, test } from 'bun:test'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import type { AuthResult } from '../src/message/verdict.ts'
import { lookIn, type Zone } from './zone.ts'

const DIRECTORY = join(import.meta.dir, 'auth')

/** Documents of a YAML file of the suite, each with tests and what they need. */
async function documents(begin: string): Promise<readonly unknown[]> {
  const files = readdirSync(DIRECTORY).filter((file) => file.startsWith(begin))
  const texts = await Promise.all(
    files.sort().map((file) => Bun.file(join(DIRECTORY, file)).text()),
  )
  return texts
    .flatMap((text) => text.split(/^---\s*$/m))
    .filter((text) => /^tests:/m.test(text))
    .map((text) => Bun.YAML.parse(text))
}

function resultOf(results: readonly AuthResult[], method: string): string {
  return results.find((each) => each.method === method)?.result ?? 'none'
}

type SpfTest = {
  readonly helo: string
  readonly host: string
  readonly mailfrom: string
  readonly result: string | readonly string[]
}
type SpfRecord = 'TIMEOUT' | Readonly<Record<string, unknown>>
type SpfSuite = {
  readonly description: string
  readonly tests: Readonly<Record<string, SpfTest>>
  readonly zonedata: Readonly<Record<string, readonly SpfRecord[]>>
}

/** The zone of a group: records of type SPF (99) stand for TXT where there is no TXT. */
function zoneOf(zonedata: SpfSuite['zonedata']): Zone {
  const zone: Record<string, Record<string, string[] | string>> = {}
  for (const [name, records] of Object.entries(zonedata)) {
    const types: Record<string, string[] | string> = {}
    const hasText = records.some((record) => record !== 'TIMEOUT' && record['TXT'] !== undefined)
    for (const record of records) {
      if (record === 'TIMEOUT') {
        for (const type of ['A', 'AAAA', 'MX', 'TXT', 'PTR']) types[type] ??= 'no answer in time'
        continue
      }
      for (const [given, value] of Object.entries(record)) {
        const type = given === 'SPF' && !hasText ? 'TXT' : given
        if (value === 'NONE') continue
        if (value === 'TIMEOUT') types[type] = 'no answer in time'
        else if (typeof types[type] !== 'string')
          types[type] = [...(types[type] ?? []), textOf(type, value)]
      }
    }
    zone[name.toLowerCase()] = types
  }
  return zone
}

function textOf(type: string, value: unknown): string {
  if (type === 'MX' && Array.isArray(value)) return `${value[0]} ${value[1]}`
  if (Array.isArray(value)) return value.join('')
  return String(value)
}

describe('SPF suite', async () => {
  for (const suite of (await documents('rfc7208')) as readonly SpfSuite[]) {
    const zone = zoneOf(suite.zonedata)
    for (const [name, { helo, host, mailfrom, result }] of Object.entries(suite.tests)) {
      test(`${suite.description}: ${name}`, async () => {
        const { insight, causes } = await lookIn(zone, Buffer.from('Subject: x\r\n\r\nx\r\n'), {
          session: { clientIp: host, greeting: helo, sender: mailfrom },
          inspectors: ['sender'],
        })
        expect(causes).toEqual([])
        expect([result].flat()).toContain(resultOf(insight.authentication, 'spf'))
      })
    }
  }
})

type ArcTest = {
  readonly message: string
  readonly cv: string | null
  readonly description: string
}
type ArcSuite = {
  readonly description: string
  readonly tests: Readonly<Record<string, ArcTest>>
  readonly 'txt-records': Readonly<Record<string, string>>
}

/**
 * The suite leaves `cv` empty for a chain whose newest seal says `cv=fail`: it asks a sealer to add
 * nothing. Asked for the status of the chain, RFC 8617 section 5.2 step 2: "If the Chain
 * Validation Status of the latest ARC Set is "fail", the overall state … is "fail"".
 */
const EMPTY_IS = 'fail'

describe('ARC suite', async () => {
  for (const suite of (await documents('arc-')) as readonly ArcSuite[]) {
    const zone = Object.fromEntries(
      Object.entries(suite['txt-records']).map(([name, text]) => [name, { TXT: [text] }]),
    )
    for (const [name, { message, cv }] of Object.entries(suite.tests)) {
      test(`${suite.description}: ${name}`, async () => {
        const raw = Buffer.from(message.replace(/\r?\n/g, '\r\n'))
        const { insight, causes } = await lookIn(zone, raw, { inspectors: ['sender'] })
        expect(causes).toEqual([])
        expect(resultOf(insight.authentication, 'arc')).toBe(
          cv === null || cv === '' ? EMPTY_IS : cv.toLowerCase(),
        )
      })
    }
  }
})
