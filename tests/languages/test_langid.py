"""Language identification: scripts, py3langid among the rest, hostile input, accuracy on sentences of our own."""

import dataclasses
import unicodedata

import pytest

from dudi.errors import ConfigError
from dudi.languages.detect import detect, same_language
from dudi.languages.registry import LANGUAGES

CODES = list(LANGUAGES)

SENTENCES = {
    "id": [
        "Pemerintah kota akan memperbaiki jalan yang rusak sebelum musim hujan tiba.",
        "Saya ingin memesan dua cangkir kopi tanpa gula.",
        "Anak-anak sedang bermain bola di lapangan dekat sekolah.",
        "Menurut saya, cara terbaik untuk menghemat uang adalah mencatat semua pengeluaran.",
        "Kereta api dari Bandung terlambat karena banjir.",
        "Bisakah Anda menjelaskan perbedaan antara virus dan bakteri?",
        "Resep rendang ini sudah diwariskan oleh nenek saya sejak dulu.",
        "Jumlah penduduk desa itu kurang dari seribu orang.",
        "Kapan rapat berikutnya akan diadakan?",
    ],
    "vi": [
        "Hôm nay trời mưa to nên tôi ở nhà đọc sách.",
        "Bạn có thể cho tôi biết đường đến bưu điện không?",
        "Phở là món ăn nổi tiếng của người Việt.",
        "Giá xăng dầu trong nước đã giảm so với tuần trước.",
        "Chị ấy dạy toán ở một trường trung học tại Huế.",
        "Muốn ngủ ngon, bạn nên tránh uống cà phê vào buổi tối.",
        "Con mèo đen đang nằm ngủ trên mái nhà.",
        "Tôi không đồng ý với ý kiến này.",
    ],
    "th": [
        "วันนี้อากาศร้อนมากจนไม่อยากออกไปไหน",
        "ช่วยแนะนำร้านอาหารแถวนี้หน่อยครับ",
        "แม่กำลังทำแกงเขียวหวานอยู่ในครัว",
        "รถไฟเที่ยวนี้จะถึงเชียงใหม่กี่โมง",
        "ใช่",
        "ไฟล์นี้เปิดด้วยโปรแกรม Microsoft Excel ได้",
        "นักเรียนทุกคนต้องส่งการบ้านภายในวันศุกร์",
        "เขาชอบอ่านหนังสือประวัติศาสตร์มากกว่านิยาย",
    ],
    "ta": [
        "நேற்று மாலை கடற்கரையில் நல்ல காற்று வீசியது.",
        "உங்கள் பெயர் என்ன?",
        "பள்ளிக்கு அருகில் ஒரு பெரிய நூலகம் உள்ளது.",
        "விவசாயிகள் மழைக்காகக் காத்திருக்கிறார்கள்.",
        "எனக்கு இரண்டு தோசை வேண்டும்.",
        "இந்தக் கணினியில் Windows நிறுவப்பட்டுள்ளது.",
        "அவள் தினமும் காலையில் ஓடுகிறாள்.",
        "ஆம், நிச்சயமாக.",
    ],
    "tl": [
        "Nagluto si nanay ng adobo para sa hapunan.",
        "Saan po ang pinakamalapit na istasyon ng tren?",
        "Mahilig akong magbasa ng mga nobela tuwing Linggo.",
        "Dapat nating pangalagaan ang kalikasan para sa susunod na henerasyon.",
        "Hindi ko alam kung bakit siya umalis nang maaga.",
        "Ang presyo ng bigas ay tumaas noong nakaraang buwan.",
        "Magandang umaga po sa inyong lahat.",
        "Tatlong estudyante ang nanalo sa paligsahan.",
    ],
    "ms": [
        "Kerajaan akan membaiki jalan raya yang rosak di kawasan luar bandar.",
        "Saya hendak membeli tiket kereta api ke Ipoh.",
        "Bolehkah awak terangkan maksud perkataan ini?",
        "Pelajar universiti itu mendapat biasiswa daripada sebuah syarikat swasta.",
        "Polis telah menahan dua orang lelaki kerana mencuri kereta.",
        "Esok pejabat ditutup kerana cuti umum.",
        "Beliau dilantik sebagai pengerusi jawatankuasa pada tahun lepas.",
        "Nenek saya tinggal di kampung bersama lapan ekor kucing.",
    ],
    "my": [
        "ဒီနေ့ မိုးရွာလို့ အပြင်မထွက်ဘူး။",
        "ဘူတာရုံကို ဘယ်လိုသွားရမလဲ။",
        "ကျွန်တော် ရန်ကုန်မှာ နေပါတယ်။",
        "ကလေးများသည် ကျောင်းသို့ သွားကြသည်။",
        "မုန့်ဟင်းခါးသည် မြန်မာ့ရိုးရာ အစားအစာ ဖြစ်သည်။",
        "ကျေးဇူးတင်ပါတယ်။",
        "ဒီဖုန်းက Android စနစ်ကို သုံးထားတယ်။",
        "စာအုပ်ဖတ်ရတာ ဝါသနာပါတယ်။",
    ],
    "en": [
        "The train to Penang leaves at half past nine.",
        "Could you explain how photosynthesis works?",
        "She has lived in the same house for forty years.",
        "Most of the rice is grown in the river delta.",
        "I would like a cup of tea, please.",
        "The committee will publish its report next week.",
        "Children under six travel free of charge.",
        "It rained all night, so the match was cancelled.",
    ],
}
SCRIPT_LANGUAGES = ("th", "ta", "my")


def hits(code):
    return sum(detect(sentence, CODES) == code for sentence in SENTENCES[code])


@pytest.mark.parametrize("code", CODES)
def test_there_are_enough_sentences_to_judge_by(code):
    assert len(SENTENCES[code]) >= 8


@pytest.mark.parametrize("code", SCRIPT_LANGUAGES)
def test_a_language_with_a_script_of_its_own_is_always_found(code):
    assert hits(code) == len(SENTENCES[code])


def test_accuracy_over_all_sentences():
    right = sum(hits(code) for code in CODES)
    assert right / sum(map(len, SENTENCES.values())) >= 0.8


def test_accuracy_with_indonesian_and_malay_taken_for_one():
    answers = [(detect(text, CODES), code) for code, texts in SENTENCES.items() for text in texts]
    merged = sum(same_language(got, want, merge_malay=True) for got, want in answers) / len(answers)
    strict = sum(same_language(got, want) for got, want in answers) / len(answers)
    assert merged >= max(strict, 0.95)


def test_candidates_in_any_order_give_the_same_answer():
    for texts in SENTENCES.values():
        assert detect(texts[0], CODES) == detect(texts[0], CODES[::-1])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("คำสั่ง print คือ 'print(\"hello world\")' ใช้แสดงข้อความออกทางหน้าจอ", "th"),
        ("The Thai word for water is น้ำ and it is pronounced with a high tone.", "en"),
    ],
)
def test_a_share_of_another_script_is_borne(text, wanted):
    assert detect(text, CODES) == wanted


def test_vietnamese_written_with_combining_accents_is_vietnamese():
    for sentence in SENTENCES["vi"]:
        assert detect(unicodedata.normalize("NFD", sentence), CODES) == "vi"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("今天天气很好,我们去公园散步吧。", "zh"), ("Сегодня хорошая погода.", "ru"), ("오늘 날씨가 좋네요.", "ko")],
)
def test_a_script_of_no_candidate_is_not_forced_on_one(text, wanted):
    assert detect(text, CODES) == wanted


@pytest.mark.parametrize(
    "text", ["", " ", "ok", "42 + 17 = 59", "\ud800\udfff", "\x00\x01\x02", "🙂❤️👍🏽", "...", "é!"]
)
def test_too_little_text_is_undetermined(text):
    assert detect(text, CODES) == "und"


@pytest.mark.parametrize("noise", ["\ud83d", "\x00", "\u200b", "\x1b[31m", "\ufffe"])
def test_malformed_characters_do_no_harm(noise):
    assert detect(f"{noise}สวัสดีครับ{noise}", CODES) == "th"
    assert detect(f"{noise}The weather is nice today{noise}.", CODES) == "en"


def test_a_long_text_is_judged_by_its_beginning():
    assert detect("The harvest was good this year. " * 200 + "สวัสดีครับ" * 10_000, CODES) == "en"


def test_a_lone_candidate_of_a_script_needs_no_model():
    assert detect("Selamat pagi semuanya", ["id", "th"]) == "id"


def test_candidates_that_share_a_script_are_told_apart_by_the_model():
    hindi = dataclasses.replace(LANGUAGES["th"], code="hi", name="Hindi", script="Devanagari")
    marathi = dataclasses.replace(hindi, code="mr", name="Marathi")
    known = {**LANGUAGES, "hi": hindi, "mr": marathi}
    assert detect("मुझे आज बाज़ार जाना है और सब्ज़ियाँ खरीदनी हैं।", ["hi", "mr", "en"], known) == "hi"
    assert detect("मला आज बाजारात जाऊन भाजी विकत घ्यायची आहे.", ["hi", "mr", "en"], known) == "mr"


def test_a_candidate_unknown_to_the_model():
    shan = dataclasses.replace(LANGUAGES["my"], code="shn", name="Shan")
    sunda = dataclasses.replace(LANGUAGES["id"], code="su", name="Sundanese")
    known = {**LANGUAGES, "shn": shan, "su": sunda}
    burmese = SENTENCES["my"][0]
    assert detect(burmese, ["shn", "en"], known) == "shn", "its script settles it when no other candidate shares it"
    assert detect(burmese, ["shn", "my"], known) == "my", "else the model cannot name it"
    balinese = dataclasses.replace(sunda, code="ban", name="Balinese")
    assert detect("Wilujeng enjing sadayana", ["su", "ban"], {**known, "ban": balinese}) == "und"


def test_the_answer_does_not_depend_on_earlier_calls():
    text = SENTENCES["ms"][0]
    before = detect(text, CODES)
    detect(text, ["en", "vi"])
    assert detect(text, CODES) == before


def test_an_unknown_candidate_is_named():
    with pytest.raises(ConfigError, match=r"candidates: unknown language 'ix'"):
        detect("text", ["id", "ix"])


@pytest.mark.parametrize(
    ("detected", "wanted", "merge", "same"),
    [
        ("id", "id", False, True),
        ("id", "ms", False, False),
        ("id", "ms", True, True),
        ("ms", "id", True, True),
        ("id", "tl", True, False),
        ("und", "id", True, False),
    ],
)
def test_same_language(detected, wanted, merge, same):
    assert same_language(detected, wanted, merge_malay=merge) is same
