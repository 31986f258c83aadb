/** Routes of the API for the keys that sign mail of our domains (DKIM). */
import { t } from 'elysia'
import { type Call, param, type Route, TEXT, text } from './route.ts'
import * as shape from './shapes.ts'
import type { Site } from './site.ts'
import { listOf } from './wire.ts'

const DOMAIN = t.Object({ name: TEXT('Domain', 300) })
const KEY = t.Object({ name: TEXT('Domain', 300), selector: TEXT('Selector', 60) })

export function signingRoutes({ admin }: Pick<Site, 'admin'>): readonly Route[] {
  const tag = 'Domains'
  const one = { tag, path: '/domains/:name/dkim/:selector', params: KEY, refuses: [404] } as const
  const named = (call: Call): readonly [string, string] => [
    param(call, 'name'),
    param(call, 'selector'),
  ]
  return [
    {
      method: 'GET',
      path: '/domains/:name/dkim',
      summary: 'Keys that sign mail of a domain, with the records that the DNS must have',
      tag,
      params: DOMAIN,
      answer: shape.list(shape.SIGNING_KEY),
      run: (call) => listOf(admin.signingKeys(param(call, 'name'))),
    },
    {
      method: 'POST',
      path: '/domains/:name/dkim',
      summary: 'Make a key; it signs when the DNS has its record',
      tag,
      params: DOMAIN,
      body: t.Object({
        selector: TEXT('Selector, like s2026', 60),
        algorithm: TEXT('rsa or ed25519', 20),
      }),
      answer: shape.SIGNING_KEY,
      refuses: [409],
      run: (call) =>
        admin.addSigningKey(call.author(), {
          domain: param(call, 'name'),
          selector: text(call, 'selector'),
          algorithm: text(call, 'algorithm'),
        }),
    },
    {
      ...one,
      method: 'POST',
      path: '/domains/:name/dkim/:selector/check',
      summary: 'Ask the DNS for the record of a key; it signs from then on',
      answer: shape.SIGNING_KEY,
      refuses: [404, 409],
      run: (call) => admin.checkSigningKey(call.author(), ...named(call)),
    },
    {
      ...one,
      method: 'POST',
      path: '/domains/:name/dkim/:selector/retire',
      summary: 'Sign with it no more; its record must stay for mail that is on its way',
      answer: shape.SIGNING_KEY,
      refuses: [404, 409],
      run: (call) => admin.retireSigningKey(call.author(), ...named(call)),
    },
    {
      ...one,
      method: 'DELETE',
      summary: 'Remove a key',
      answer: shape.DONE,
      run: (call) => {
        admin.removeSigningKey(call.author(), ...named(call))
        return { done: true }
      },
    },
  ]
}
