/** Limits per client network: what counts as one client, when it is too much, what is remembered. */
import { expect, test } from 'bun:test'
import { initialSettings } from '../src/config/schema.ts'
import { networkList, networkOf, plainIp, Throttle } from '../src/mail/accept/throttle.ts'
import { ManualClock } from './clock.ts'

const settings = {
  ...initialSettings(),
  'limits.connections': 2,
  'limits.connectionRate': 5,
  'limits.recipientRate': 3,
}

test('an IPv6 client is its /64, an IPv4 client itself, a mapped one as IPv4', () => {
  for (const [ip, network] of [
    ['192.0.2.1', '192.0.2.1'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
    ['2001:db8::1', '2001:db8:0:0::/64'],
    ['::1', '0:0:0:0::/64'],
  ] as const) {
    expect(networkOf(ip)).toBe(network)
  }
  expect(plainIp('::ffff:192.0.2.1')).toBe('192.0.2.1')
  expect(plainIp('fe80::1%eth0')).toBe('fe80::1')
})

test('a list of networks holds what is inside, and nothing else', () => {
  const isListed = networkList(['10.0.0.0/8', '2001:db8::/32', '192.0.2.7'])
  for (const ip of ['10.1.2.3', '2001:db8::9', '192.0.2.7']) expect(isListed(ip)).toBe(true)
  for (const ip of ['11.0.0.1', '2001:db9::1', '192.0.2.8', '']) expect(isListed(ip)).toBe(false)
})

test('one connection too many is refused, and there is room again when one ends', () => {
  const throttle = new Throttle(new ManualClock())
  expect([1, 2, 3].map(() => throttle.opened('192.0.2.1', settings))).toEqual([true, true, false])
  expect(throttle.opened('192.0.2.2', settings)).toBe(true)
  throttle.closed('192.0.2.1')
  expect(throttle.opened('192.0.2.1', settings)).toBe(true)
})

test('addresses of one /64 share a limit', () => {
  const throttle = new Throttle(new ManualClock())
  const ips = ['2001:db8::1', '2001:db8::2', '2001:db8::3']
  expect(ips.map((ip) => throttle.opened(ip, settings))).toEqual([true, true, false])
})

test('a rate counts for its minute, refused ones too, and then begins anew', () => {
  const clock = new ManualClock()
  const throttle = new Throttle(clock)
  const attempt = (): boolean => {
    const opened = throttle.opened('192.0.2.1', settings)
    if (opened) throttle.closed('192.0.2.1')
    return opened
  }
  expect([1, 2, 3, 4, 5, 6].map(attempt)).toEqual([true, true, true, true, true, false])
  clock.advance(60_000)
  expect(attempt()).toBe(true)
})

test('recipients are counted for five minutes', () => {
  const clock = new ManualClock()
  const throttle = new Throttle(clock)
  expect([1, 2, 3, 4].map(() => throttle.addressed('192.0.2.1', settings))).toEqual([
    true,
    true,
    true,
    false,
  ])
  clock.advance(300_000)
  expect(throttle.addressed('192.0.2.1', settings)).toBe(true)
})

test('who has delivered a message is known, its neighbour is not', () => {
  const throttle = new Throttle(new ManualClock())
  expect(throttle.hasBehaved('192.0.2.1')).toBe(false)
  throttle.behaved('192.0.2.1')
  expect(throttle.hasBehaved('192.0.2.1')).toBe(true)
  expect(throttle.hasBehaved('192.0.2.2')).toBe(false)
})

test('a flood of addresses forgets the oldest, never one that is connected', () => {
  const throttle = new Throttle(new ManualClock())
  throttle.opened('192.0.2.1', settings)
  throttle.opened('192.0.2.1', settings)
  throttle.behaved('192.0.2.9')
  for (let at = 0; at < 60_000; at++)
    throttle.addressed(`10.${at >> 16}.${(at >> 8) & 255}.${at & 255}`, settings)
  expect(throttle.hasBehaved('192.0.2.9')).toBe(false)
  expect(throttle.opened('192.0.2.1', settings)).toBe(false)
})
